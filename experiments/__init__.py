"""The studies behind what the project claims; see README.md."""

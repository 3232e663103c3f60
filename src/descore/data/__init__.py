"""From files to token ids: video, chat."""

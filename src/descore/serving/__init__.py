"""The model as a service over HTTP: an app of FastAPI, and a client with the Scorer's face.

Nothing is imported here: processes that decode import parts of this package, and need no web framework."""

"""The backbone, the query, the head, and thinking.

Importing this package imports torchvision leniently, before transformers gets to do it strictly."""

from descore.model.torchvision_import import import_torchvision

import_torchvision()

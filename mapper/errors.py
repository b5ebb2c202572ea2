"""Everything mapper raises on purpose, and the exit code each one ends the program with.

MapperError                 1  failure
├── UsageError              2  the command line asks for something that cannot be
├── InputError              3  an AOI, recipe or model card is wrong; nothing has been read
│   ├── AreaError              the AOI file or one of its features
│   ├── RecipeError            the recipe
│   ├── ModelError             the model folder: card, checksum, graph
│   ├── ImageError             an image that does not fit the model
│   └── DataError              labelled data: a file, band, size or colour that does not fit
├── NothingFoundError       4  the search left no scene; says which filter removed them
├── CatalogError            1  the catalog does not answer, or answers nonsense
├── ReadError               1  an asset is missing, cut off or does not hold what its item says
├── StoreError              1  a shard, ledger or product could not be written
├── LockedError             1  another run works in this folder
├── ResourceError           3  the plan does not fit the memory; nothing has been read
├── DeviceError             1  the accelerator is not there, or stopped answering
│   └── DeviceMemoryError      a batch does not fit its memory
├── PartlyDoneError         5  some cities are done, others are not; run again to resume
├── HeldError               6  maps did not pass their gates and wait for a person to release them
└── StoppedError        128+n  signal n ended the run in good order; run again to resume

A message says what is wrong, the value, and the remedy.
"""


class MapperError(Exception):
    """Root of the tree. `exit_code` is what the program ends with."""

    exit_code = 1


class UsageError(MapperError):
    """The command line asks for something that cannot be."""

    exit_code = 2


class InputError(MapperError):
    """Input is refused before any pixel is read."""

    exit_code = 3


class AreaError(InputError):
    """The AOI file, or one of its features, cannot be used."""


class RecipeError(InputError):
    """The recipe is unknown or not valid."""


class ModelError(InputError):
    """The model folder does not hold what its card promises."""


class ImageError(InputError):
    """An image cannot be read, or does not fit the model."""


class DataError(InputError):
    """Labelled data cannot be read, or does not fit the recipe."""


class NothingFoundError(MapperError):
    """No scene is left for a city, or for any city."""

    exit_code = 4


class CatalogError(MapperError):
    """The catalog does not answer, or its answer is not STAC."""


class ReadError(MapperError):
    """An asset is missing, cut off, or not what its item says."""


class StoreError(MapperError):
    """A shard, ledger entry or product could not be written."""


class LockedError(MapperError):
    """Another run holds this folder."""


class ResourceError(InputError):
    """The plan does not fit the memory that there is."""


class DeviceError(MapperError):
    """The accelerator is not there, or stopped answering."""


class DeviceMemoryError(DeviceError):
    """A batch of windows does not fit the memory."""


class PartlyDoneError(MapperError):
    """Some cities are done and others are not."""

    exit_code = 5


class HeldError(MapperError):
    """Maps are finished and did not pass their gates."""

    exit_code = 6


class StoppedError(MapperError):
    """A signal ended the run; what was begun was finished as far as there was time."""

    def __init__(self, message: str, signal: int) -> None:
        """The exit code is that of a program which the signal ended."""
        super().__init__(message)
        self.exit_code = 128 + signal

"""The DSL's operations, one file a family."""

from ..op import require_index as require_index
from .convert import *  # noqa: F403
from .creation import *  # noqa: F403
from .elementwise import *  # noqa: F403
from .elementwise import abs as abs
from .matmul import *  # noqa: F403
from .memory import *  # noqa: F403
from .program import *  # noqa: F403
from .random import *  # noqa: F403
from .reduction import *  # noqa: F403
from .shape import *  # noqa: F403

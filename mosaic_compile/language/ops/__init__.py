"""The DSL's operations, one file a family."""

from ..op import require_index as require_index
from .convert import *
from .creation import *
from .elementwise import *
from .elementwise import abs as abs
from .matmul import *
from .memory import *
from .program import *
from .random import *
from .reduction import *
from .shape import *

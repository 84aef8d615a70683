# The module that build_ffi.py makes. cffi's objects are typed by the C header, not by Python.
from typing import Any

ffi: Any
lib: Any

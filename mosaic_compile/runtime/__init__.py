"""Running compiled kernels: devices, arguments, launches."""

"""The asyncio client of `safekit-pulse`, for `safekitd`."""

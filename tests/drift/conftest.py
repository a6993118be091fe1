"""Examples may be slow on a busy machine: only their answers count."""

from hypothesis import settings

settings.register_profile("steady", deadline=None)
settings.load_profile("steady")

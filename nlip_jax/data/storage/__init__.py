"""Files wherever they lie: named, looked at, read at any place."""

from nlip_jax.data.storage.files import File, Status
from nlip_jax.data.storage.remote import is_remote
from nlip_jax.data.storage.storage import Storage

__all__ = ["File", "Status", "Storage", "is_remote"]

"""The words on the wire: the signal envelope, its payloads, and the control, registry and dead-letter records.

Nothing here decides or does anything. Start with `schemas.signal`; `schemas.catalog` lists which payload belongs
to which signal type.
"""

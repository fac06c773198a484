"""What `data` holds, one pydantic model per kind of news. `schemas.catalog` says which signal type carries which."""

"""Write ``.env`` with fresh secrets for docker-compose.yaml; an existing file is left alone (`make compose-env`)."""

from __future__ import annotations

import json
import secrets
from pathlib import Path

from cryptography.fernet import Fernet

FILE = Path(__file__).resolve().parents[2] / ".env"
PASSWORD = secrets.token_urlsafe(12)
SECRETS = {
    "FERNET_KEY": Fernet.generate_key().decode(),
    "API_SECRET_KEY": secrets.token_hex(32),
    "JWT_SECRET": secrets.token_hex(32),
    "POSTGRES_PASSWORD": secrets.token_hex(16),
    "S3_ACCESS_KEY": secrets.token_hex(10),
    "S3_SECRET_KEY": secrets.token_hex(20),
    "GATEWAY_TOKEN": secrets.token_hex(16),
    "AIRFLOW_PASSWORD": PASSWORD,
    "AIRFLOW_PASSWORDS_JSON": json.dumps({"admin": PASSWORD}),
}

if FILE.exists():
    raise SystemExit(
        f"{FILE} is there already. Delete it to make new secrets; servers that use the old ones must go too."
    )
FILE.touch(mode=0o600)
FILE.write_text("".join(f"{name}='{value}'\n" for name, value in SECRETS.items()))
print(f"wrote {FILE}; sign in to Airflow as admin with {PASSWORD}")

"""What the operator sets: `ROOST_*` variables, checked at start."""

from __future__ import annotations

from typing import Self

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from flet_fastapi.errors import OptionError


class Settings(BaseSettings):
    """How the server runs; what the apps do is in `flet_fastapi.options`."""

    model_config = SettingsConfigDict(env_prefix="ROOST_", frozen=True, extra="forbid", env_ignore_empty=True)

    app: str = Field(min_length=1, description="path/to/file.py or package.module, with :name or without")
    host: str = Field("127.0.0.1", description="the address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="the port to listen on; 0 picks a free one")
    workers: int = Field(1, ge=1, le=512, description="processes")
    ws_ping_interval: float = Field(20, gt=0, le=3600, description="seconds between a websocket's pings")
    ws_ping_timeout: float = Field(20, gt=0, le=3600, description="seconds that a ping's answer may take")
    root_path: str = Field("", description="the URL prefix that a proxy in front strips")
    forwarded_allow_ips: str = Field("127.0.0.1", description="addresses or networks whose X-Forwarded-* are believed")

    @classmethod
    def load(cls, **arguments: object) -> Self:
        """The settings; arguments that are not None go before variables.

        Raises:
            OptionError: naming the first variable or argument that is wrong.
        """
        try:
            return cls(**{name: value for name, value in arguments.items() if value is not None})  # type: ignore[arg-type]
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise OptionError(f"ROOST_{first['loc'][0]}".upper(), first["msg"]) from None

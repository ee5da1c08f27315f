"""An OAuth 2 and OpenID Connect provider on a local port: Authlib's server behind Starlette.

`async with OAuthServer() as provider:` serves it from a thread of its own, so that a test may block the app's loop
and still get its answers. The consent page has the buttons `#allow` and `#deny`; `consent` answers without it.
It is also GitHub, Google, Azure and Auth0 to those who reach it by these names (`HOSTS`, see `internet.py`).
"""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
import threading
import time
from dataclasses import dataclass, field
from typing import Any, Literal, Self
from urllib.parse import parse_qsl, urlencode, urlsplit

import uvicorn
from authlib.oauth2.rfc6749 import AuthorizationServer, OAuth2Error, OAuth2Payload, OAuth2Request, grants  # type: ignore[import-untyped]
from authlib.oauth2.rfc6749.errors import InvalidRequestError, InvalidScopeError  # type: ignore[import-untyped]
from authlib.oauth2.rfc6750 import BearerTokenGenerator  # type: ignore[import-untyped]
from authlib.oauth2.rfc7636 import CodeChallenge  # type: ignore[import-untyped]
from authlib.oidc.core.grants import OpenIDCode  # type: ignore[import-untyped]
from joserfc.jwk import KeySet, RSAKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Host, Route, Router

CLIENT_ID = "flet-app"
CLIENT_SECRET = "not-a-secret"
USER = {"sub": "ann", "name": "Ann <b>Example</b>", "email": "ann@example.com"}
_SCOPES = {"openid", "profile", "email"}

# Ann, in the words of each (docs.github.com "Get the authenticated user", developers.google.com "OpenID Connect",
# learn.microsoft.com "Get a user", auth0.com "Get User Info").
PROFILES: dict[str, Any] = {
    "api.github.com/user": {"id": 583231, "login": "ann", "name": "Ann of GitHub", "email": None},
    "api.github.com/user/emails": [
        {"email": "old@example.com", "primary": False, "verified": True},
        {"email": "ann@example.com", "primary": True, "verified": True},
    ],
    "www.googleapis.com/oauth2/v3/userinfo": {
        "sub": "108204268033311374519", "name": "Ann of Google", "email": "ann@example.com", "email_verified": True,
    },
    "graph.microsoft.com/v1.0/me": {
        "id": "87d349ed-44d7-43e1-9a83-5f2406dee5bd", "displayName": "Ann of Azure", "mail": "ann@example.com",
    },
    "ann.auth0.test/userinfo": {
        "sub": "auth0|507f1f77bcf86cd799439011", "name": "Ann of Auth0", "email": "ann@example.com",
    },
}  # fmt: skip
_CONSENTS = [
    "github.com/login/oauth/authorize",
    "accounts.google.com/o/oauth2/auth",
    "login.microsoftonline.com/common/oauth2/v2.0/authorize",
    "ann.auth0.test/authorize",
]
_TOKENS = [
    "github.com/login/oauth/access_token",
    "oauth2.googleapis.com/token",
    "login.microsoftonline.com/common/oauth2/v2.0/token",
    "ann.auth0.test/oauth/token",
]
_SCOPES_BY_NAME = {
    "read:user", "user:email", "user.read", "offline_access",
    "https://www.googleapis.com/auth/userinfo.email", "https://www.googleapis.com/auth/userinfo.profile",
}  # fmt: skip
HOSTS = {address.partition("/")[0] for address in (*PROFILES, *_CONSENTS, *_TOKENS)}

_CONSENT = """<!doctype html><title>Sign in</title><form method="post">
<p>{client} wants to know who you are.</p>
<button id="allow" name="decision" value="allow">Allow</button>
<button id="deny" name="decision" value="deny">Deny</button></form>"""


@dataclass
class Client:
    """The one client, of RFC 6749's confidential kind."""

    redirect_uris: list[str]
    client_id: str = CLIENT_ID

    def get_client_id(self) -> str:
        return self.client_id

    def get_default_redirect_uri(self) -> str:
        return self.redirect_uris[0]

    def get_allowed_scope(self, scope: str | None) -> str:
        return " ".join(sorted(_SCOPES & set((scope or "").split())))

    def check_redirect_uri(self, redirect_uri: str) -> bool:
        return redirect_uri in self.redirect_uris

    def check_client_secret(self, client_secret: str) -> bool:
        return client_secret == CLIENT_SECRET

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return method in ("client_secret_post", "client_secret_basic")

    def check_response_type(self, response_type: str) -> bool:
        return response_type == "code"

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type == "authorization_code"


@dataclass
class Code:
    """An authorization code that was given out."""

    code: str
    redirect_uri: str
    scope: str
    nonce: str | None
    code_challenge: str | None
    code_challenge_method: str | None
    expires: float

    def get_redirect_uri(self) -> str:
        return self.redirect_uri

    def get_scope(self) -> str:
        return self.scope

    def get_nonce(self) -> str | None:
        return self.nonce

    def get_auth_time(self) -> int:
        return int(time.time())

    def get_acr(self) -> None:
        return None

    def get_amr(self) -> None:
        return None


@dataclass
class OAuthServer:
    """`redirect_uris` must hold the app's callback URL; everything may be changed while it runs.

    The token endpoint answers after `token_delay` seconds, and not before `held`, if there is one, is set.
    """

    redirect_uris: list[str] = field(default_factory=list)
    consent: Literal["ask", "allow", "deny"] = "ask"
    code_seconds: float = 60
    token_delay: float = 0
    held: threading.Event | None = None
    require_pkce: bool = False
    scopes: set[str] = field(default_factory=lambda: _SCOPES | _SCOPES_BY_NAME)
    url: str = ""
    codes: dict[str, Code] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)
    token_requests: int = 0
    token_errors: list[str] = field(default_factory=list)

    async def __aenter__(self) -> Self:
        listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self._key = RSAKey.generate_key(2048, {"kid": "1"})
        self._authlib = _Authlib(self)
        self._uvicorn = uvicorn.Server(uvicorn.Config(self.app(), log_level="warning", lifespan="off"))
        # a listening socket takes connections before its server runs: nobody has to wait for the thread
        self._thread = threading.Thread(target=self._uvicorn.run, args=([listener],), name="oauth-server")
        self._thread.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.held is not None:
            self.held.set()
        self._uvicorn.should_exit = True
        await asyncio.to_thread(self._thread.join)

    async def is_asked(self) -> bool:
        """Whether anybody has come for a token."""
        return self.token_requests > 0

    def provider(self, redirect_url: str, **extra: Any) -> dict[str, Any]:
        """The arguments of flet's `OAuthProvider` for this server.

        The app's process needs OAUTHLIB_INSECURE_TRANSPORT=1, for flet's oauthlib insists on https.
        """
        self.redirect_uris.append(redirect_url)
        return {
            "client_id": CLIENT_ID,
            "client_secret": CLIENT_SECRET,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "redirect_url": redirect_url,
            "user_scopes": ["openid", "profile"],
            "user_endpoint": f"{self.url}/userinfo",
            "user_id_fn": lambda user: user["sub"],
            **extra,
        }

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                *self._by_name(),
                Route("/authorize", self._authorize, methods=["GET", "POST"]),
                Route("/token", self._token, methods=["POST"]),
                Route("/userinfo", self._userinfo),
                Route("/jwks", self._jwks),
                Route("/.well-known/openid-configuration", self._configuration),
            ]
        )

    def _by_name(self) -> list[Host]:
        routes: dict[str, list[Route]] = {host: [] for host in sorted(HOSTS)}
        for addresses, endpoint, methods in (
            (PROFILES, self._profile, ["GET"]),
            (_CONSENTS, self._authorize, ["GET", "POST"]),
            (_TOKENS, self._token, ["POST"]),
        ):
            for address in addresses:
                host, _, path = address.partition("/")
                routes[host].append(Route(f"/{path}", endpoint, methods=methods))
        return [Host(host, Router(found)) for host, found in routes.items()]

    async def _authorize(self, request: Request) -> Response:
        asked = await _OAuth2Request.read(request)
        try:
            grant = self._authlib.get_consent_grant(asked, USER)
        except OAuth2Error as error:
            return self._authlib.handle_error_response(asked, error)  # type: ignore[no-any-return]
        decision = asked.form.get("decision") if request.method == "POST" else self.consent
        if decision == "ask":
            return HTMLResponse(_CONSENT.format(client=CLIENT_ID))
        user = USER if decision == "allow" else None
        return self._authlib.create_authorization_response(asked, user, grant)  # type: ignore[no-any-return]

    async def _token(self, request: Request) -> Response:
        self.token_requests += 1
        await asyncio.sleep(self.token_delay)
        if self.held is not None:
            await asyncio.to_thread(self.held.wait)
        response: Response = self._authlib.create_token_response(await _OAuth2Request.read(request))
        answer = json.loads(response.body)
        if "error" in answer:
            self.token_errors.append(answer["error"])
        elif request.url.hostname == "github.com":
            # a form, unless it is asked for JSON
            return Response(urlencode(answer), media_type="application/x-www-form-urlencoded")
        return response

    async def _userinfo(self, request: Request) -> Response:
        return self._to_bearer(request, USER)

    async def _profile(self, request: Request) -> Response:
        return self._to_bearer(request, PROFILES[f"{request.url.hostname}{request.url.path}"])

    def _to_bearer(self, request: Request, answer: Any) -> Response:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or token not in self.tokens:
            return JSONResponse({"error": "invalid_token"}, 401, {"WWW-Authenticate": 'Bearer error="invalid_token"'})
        return JSONResponse(answer)

    async def _jwks(self, _: Request) -> Response:
        return JSONResponse(KeySet([self._key]).as_dict(private=False))

    async def _configuration(self, _: Request) -> Response:
        return JSONResponse({
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "userinfo_endpoint": f"{self.url}/userinfo",
            "jwks_uri": f"{self.url}/jwks",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "code_challenge_methods_supported": ["S256"],
        })  # fmt: skip


class _Payload(OAuth2Payload):  # type: ignore[misc]
    def __init__(self, values: list[tuple[str, str]]) -> None:
        self.data = dict(values)
        self.datalist = {name: [v for key, v in values if key == name] for name, _ in values}

    data: Any = None
    datalist: Any = None


class _OAuth2Request(OAuth2Request):  # type: ignore[misc]
    args: Any = None
    form: Any = None

    @classmethod
    async def read(cls, request: Request) -> Self:
        form = parse_qsl((await request.body()).decode(), keep_blank_values=True)
        # Authlib takes no plain http, which is right everywhere but here
        read = cls(request.method, str(request.url.replace(scheme="https")), headers=request.headers)
        read.args, read.form = dict(request.query_params), dict(form)
        read.payload = _Payload([*request.query_params.multi_items(), *form])
        return read


class _Authlib(AuthorizationServer):  # type: ignore[misc]
    def __init__(self, provider: OAuthServer) -> None:
        super().__init__()
        self.provider = provider
        self.register_token_generator("default", BearerTokenGenerator(lambda **_: secrets.token_urlsafe(24), None))
        challenge = CodeChallenge(required=True)
        challenge.SUPPORTED_CODE_CHALLENGE_METHOD = ["S256"]
        self.register_grant(_CodeGrant, [challenge, _OpenID(provider)])

    def validate_requested_scope(self, scope: str | None) -> None:
        if not set((scope or "").split()) <= self.provider.scopes:
            raise InvalidScopeError

    def query_client(self, client_id: str) -> Client | None:
        return Client(self.provider.redirect_uris) if client_id == CLIENT_ID else None

    def save_token(self, token: dict[str, Any], request: Any) -> None:
        self.provider.tokens[token["access_token"]] = USER["sub"]

    def create_oauth2_request(self, request: Any) -> Any:
        return request

    def handle_response(self, status: int, body: Any, headers: list[tuple[str, str]]) -> Response:
        response = JSONResponse(body, status) if isinstance(body, dict) else Response(body, status)
        for name, value in headers:
            response.headers[name] = value
        return response

    def send_signal(self, name: str, *args: Any, **kwargs: Any) -> None:
        pass


class _CodeGrant(grants.AuthorizationCodeGrant):  # type: ignore[misc]
    TOKEN_ENDPOINT_AUTH_METHODS = ("client_secret_post", "client_secret_basic")

    def validate_consent_request(self) -> None:
        super().validate_consent_request()
        if self.server.provider.require_pkce and "code_challenge" not in self.request.payload.data:
            # RFC 7636, 4.4.1
            asked = self.request.payload
            raise InvalidRequestError("code challenge required", redirect_uri=asked.redirect_uri, state=asked.state)

    def save_authorization_code(self, code: str, request: Any) -> None:
        asked = request.payload.data
        self.server.provider.codes[code] = Code(
            code, asked["redirect_uri"], request.scope, asked.get("nonce"), asked.get("code_challenge"),
            asked.get("code_challenge_method"), time.monotonic() + self.server.provider.code_seconds,
        )  # fmt: skip

    def query_authorization_code(self, code: str, client: Client) -> Code | None:
        found = self.server.provider.codes.get(code)
        return found if found is not None and found.expires > time.monotonic() else None

    def delete_authorization_code(self, authorization_code: Code) -> None:
        del self.server.provider.codes[authorization_code.code]

    def authenticate_user(self, authorization_code: Code) -> dict[str, str]:
        return USER


class _OpenID(OpenIDCode):  # type: ignore[misc]
    def __init__(self, provider: OAuthServer) -> None:
        super().__init__()
        self._provider = provider

    def exists_nonce(self, nonce: str, request: Any) -> bool:
        return any(code.nonce == nonce for code in self._provider.codes.values())

    def resolve_client_private_key(self, client: Client) -> Any:
        return self._provider._key

    def get_client_claims(self, client: Client) -> dict[str, Any]:
        return {"iss": self._provider.url, "aud": [client.client_id]}

    def generate_user_info(self, user: dict[str, str], scope: str) -> dict[str, str]:
        return user


def callback_of(location: str) -> str:
    """Path and query of the callback URL that the provider redirected to."""
    parts = urlsplit(location)
    return f"{parts.path}?{parts.query}"

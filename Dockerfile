# The app's image: the server, the web client, and the user's app with what it needs. The app's folder comes in as the
# build context `app` (compose.yaml says which); without one it is the counter.
#   docker build --build-context app=path/to/folder .
# Newer versions of the base come with `make upgrade`; to pin one, set PYTHON_IMAGE to a tag with its digest.
ARG PYTHON_IMAGE=python:3.13-slim-bookworm

FROM scratch AS app
COPY app/examples/counter/ /


# The server as uv.lock has it: every wheel is checked against its hash.
FROM ${PYTHON_IMAGE} AS server
ARG UV_VERSION=0.13.9
ENV PATH=/opt/roost/bin:/usr/local/bin:/usr/bin:/bin \
    UV_PROJECT_ENVIRONMENT=/opt/roost UV_PYTHON_DOWNLOADS=never UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1 \
    # the certificates of the machine's own store count, for networks that have an authority of their own
    UV_SYSTEM_CERTS=1 NODE_OPTIONS=--use-openssl-ca SSL_CERT_DIR=/etc/ssl/certs \
    PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
RUN --mount=type=cache,target=/root/.cache pip install --quiet "uv==${UV_VERSION}"
WORKDIR /src
COPY pyproject.toml uv.lock ./
RUN --mount=type=cache,target=/root/.cache \
    uv sync --quiet --frozen --no-dev --no-install-project \
 && find /opt/roost -type d -name tests -path '*/site-packages/*' -prune -exec rm -rf {} +

# The web client: fetched, and compressed as far as it goes. What was made once is kept in the cache.
COPY app/flet_fastapi/ app/flet_fastapi/
COPY scripts/image/web-client scripts/image/
RUN --mount=type=cache,target=/root/.cache PYTHONPATH=app scripts/image/web-client /opt/roost/share/flet_fastapi/client

COPY app/roost/ app/roost/
COPY README.md LICENSE ./
RUN --mount=type=cache,target=/root/.cache uv sync --quiet --frozen --no-dev --no-editable && rm -f /opt/roost/.lock


# What the app itself needs, under constraints that keep the server whole.
FROM server AS requirements
# Debian packages for requirements that are compiled here, as in "gcc libpq-dev"
ARG APP_BUILD_PACKAGES=""
RUN [ -z "${APP_BUILD_PACKAGES}" ] || { apt-get -q update && apt-get -qq install -y --no-install-recommends ${APP_BUILD_PACKAGES}; }
COPY constraints.txt scripts/image/install-requirements ./
COPY --from=app requirements.tx[t] app-requirements/
RUN --mount=type=cache,target=/root/.cache ./install-requirements app-requirements/requirements.txt && rm -f /opt/roost/.lock


# The app's folder, readable by everybody, without what is of use only where it was written.
FROM ${PYTHON_IMAGE} AS source
COPY --from=app . /app/
RUN find /app -depth \( -name .git -o -name .env -o -name .venv -o -name venv -o -name __pycache__ -o -name node_modules \) -exec rm -rf {} + \
 && chmod -R u=rwX,go=rX /app


FROM ${PYTHON_IMAGE}
# Debian packages that the app needs when it runs, as in "libpq5 ffmpeg"
ARG APP_PACKAGES=""
RUN [ -z "${APP_PACKAGES}" ] || { apt-get -q update && apt-get -qq install -y --no-install-recommends ${APP_PACKAGES} \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/archives/*; }
RUN groupadd --gid 10001 roost \
 && useradd --uid 10001 --gid 10001 --home-dir /tmp --no-create-home --shell /usr/sbin/nologin roost \
    # a volume takes over the owner and the mode of the folder that it is first put on
 && install -d -o roost -g roost -m 0700 /data /run/roost /secrets/app \
 && install -d -o roost -g roost -m 0750 /secrets/redis /secrets/grafana
COPY --from=requirements /opt/roost /opt/roost
COPY --from=source /app /app

# What an operator may set otherwise; the rest is in compose.yaml.
ENV PATH=/opt/roost/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp \
    ROOST_APP=/app \
    ROOST_HOST=0.0.0.0 ROOST_PORT=8000 ROOST_SLOT_PORT=8100 \
    ROOST_INTERNAL_HOST=0.0.0.0 ROOST_INTERNAL_PORT=9000 ROOST_METRICS_DIR=/tmp/metrics \
    FLET_RUN_DIR=/run/roost FLET_CLUSTER_URL=sqlite:////data/cluster.sqlite FLET_UPLOAD_DIR=/data/uploads \
    FLET_APP_STORAGE_DATA=/data/app FLET_APP_STORAGE_TEMP=/tmp
WORKDIR /app
USER 10001:10001
EXPOSE 8000 9000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --start-interval=1s --retries=3 CMD ["roost", "health"]
CMD ["roost", "serve"]

# Last, for they change with every build and make no layer.
ARG VERSION=0 REVISION=unknown
LABEL org.opencontainers.image.title="Roost app" \
      org.opencontainers.image.description="A Flet web app and the server that runs it" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

# One node. Its data directory is a volume; give it a broker with `up --broker HOST:PORT`.
# The base is pinned: raise it on purpose, and rebuild for its security updates.
FROM python:3.12.12-slim-bookworm AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY config config
COPY schemas schemas
COPY signalbox signalbox
COPY connectors connectors
COPY flows flows
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.12.12-slim-bookworm
COPY --from=build /wheels /wheels
RUN pip install --no-cache-dir --disable-pip-version-check /wheels/*.whl \
    && rm -r /wheels \
    && useradd --uid 10001 --create-home --home-dir /var/lib/signalbox --shell /usr/sbin/nologin signalbox
ENV PYTHONUNBUFFERED=1 \
    SIGNALBOX_PROFILE=prod \
    SIGNALBOX_DATA_DIR=/var/lib/signalbox/data
USER signalbox
# An app of your own is a module in this folder: mount it, or build on this image, and name it with --app.
WORKDIR /var/lib/signalbox
RUN mkdir data
VOLUME /var/lib/signalbox/data
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/livez', timeout=4)"]
ENTRYPOINT ["signalbox"]
CMD ["up", "--http", "0.0.0.0:8080"]

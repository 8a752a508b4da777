# tansaku as a service. docker build -t tansaku . && docker run -p 8080:8080 tansaku
# Mount an index to search it: docker run -p 8080:8080 -v ./db:/data tansaku serve --host 0.0.0.0 --db /data --table docs
FROM python:3.12-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY onnx_export onnx_export
COPY indexer indexer
COPY plugin plugin
COPY training training
# The compiler's cache and pip's own stay here: only /opt/tansaku goes on.
RUN python -m venv /opt/tansaku && /opt/tansaku/bin/pip install --no-cache-dir '.[mcp,serve]'

FROM python:3.12-slim
COPY --from=build /opt/tansaku /opt/tansaku
# Everything that is written has a place, so that HOME may be unset and the root file system read-only.
ENV PATH=/opt/tansaku/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    TANSAKU_CACHE_DIR=/var/cache/tansaku \
    ORT_DISABLE_TELEMETRY=1 \
    HF_HUB_DISABLE_TELEMETRY=1 \
    HF_HUB_OFFLINE=1 \
    DO_NOT_TRACK=1
RUN useradd --system --uid 10001 --no-create-home tansaku && install -d -o tansaku -g tansaku /var/cache/tansaku /data
USER 10001
WORKDIR /data
VOLUME ["/data", "/var/cache/tansaku"]
EXPOSE 8080
HEALTHCHECK --start-period=30s CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8080/health')"]
ENTRYPOINT ["tansaku"]
CMD ["serve", "--host", "0.0.0.0"]

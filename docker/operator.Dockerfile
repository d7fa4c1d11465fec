# The operator. From the top of the checkout: docker build -f docker/operator.Dockerfile -t canary-rollout/operator:0.1.0 .
FROM python:3.11-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ONLY_BINARY=:all:
RUN python -m venv /build && python -m venv /app
COPY docker/requirements-build.lock requirements.lock /locks/
RUN /build/bin/pip install --require-hashes -r /locks/requirements-build.lock \
 && /app/bin/pip install --require-hashes -r /locks/requirements.lock
COPY pyproject.toml README.md LICENSE /src/
COPY operator /src/operator
RUN /build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheel /src \
 && /app/bin/pip install --no-deps --no-index /wheel/*.whl \
 # Nothing is installed at run time.
 && /app/bin/pip uninstall --yes pip setuptools

FROM python:3.11-slim
LABEL org.opencontainers.image.title="CanaryRollout operator" org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /app /app
# The root file system is read-only; what is compiled here need not be compiled at every start.
RUN /app/bin/python -m compileall -q /app/lib
ENV PATH=/app/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["canary-rollout-operator"]

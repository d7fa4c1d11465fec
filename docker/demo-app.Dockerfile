# The app of examples/app.yaml, for a demo on a cluster of one's own. From the top of the checkout, once per version:
#   for tag in v1 v2 v3-broken; do docker build -f docker/demo-app.Dockerfile --build-arg VERSION=$tag -t canary-rollout/demo-app:$tag .; done
# It needs nothing but the standard library; a version with `-broken` in its name fails 30 % of its requests.
FROM python:3.11-slim
ARG VERSION=v1
LABEL org.opencontainers.image.title="CanaryRollout demo app" org.opencontainers.image.licenses="Apache-2.0"
COPY operator/canary_rollout/__init__.py operator/canary_rollout/errors.py /app/canary_rollout/
COPY operator/canary_rollout/local/__init__.py /app/canary_rollout/local/
COPY operator/canary_rollout/local/app /app/canary_rollout/local/app
ENV PYTHONPATH=/app PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 BIND_ADDRESS=0.0.0.0 VERSION=$VERSION
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["python", "-m", "canary_rollout.local.app"]

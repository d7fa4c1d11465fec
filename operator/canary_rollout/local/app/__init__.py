"""A small real HTTP service for the demo and the end-to-end tests: the thing that is released.

Only the standard library, one asyncio Protocol per connection, so that two cores carry a whole demo.

==================  ==========================================================================================
``GET /`` (any)     JSON: version, pod, tenant, and what the router said about this request
``/slow?seconds=N`` the same, N seconds later (at most 600)
``/healthz``        200 when ready, 503 when told so or when terminating
``/metrics``        ``http_requests_total{method,status}``, ``http_request_duration_seconds``
``POST /control``   changes the behaviour: ``error_rate``, ``latency_ms``, ``ready``, ``crash``; answers with it
==================  ==========================================================================================

Environment: ``VERSION`` or ``IMAGE_TAG``, ``POD_NAME``, ``BIND_ADDRESS``, ``PORT`` (8080), ``ERROR_RATE`` (0..1; a version
with ``-broken`` in it fails 30 % by itself), ``LATENCY_MS``, ``CRASH_AFTER`` (seconds), ``LAME_DUCK`` (seconds).
Every answer carries ``X-App-Version`` and ``X-App-Pod``: an answer without them came from no application.
"""

"""kubectl canary: what people see of a rollout and say to it.

``--help`` costs nothing but click: every module here imports the rest (pydantic, rich, the Kubernetes client) inside
the functions that need it, and ``main`` loads a command's module only when that command is called.
"""

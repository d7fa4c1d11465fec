"""Parts of ``kubectl canary diff``: the same requests to both versions, and what their answers differ in."""

"""Client code for the WeChat platform and COS: HTTP transport, interfaces, uploads, and access tokens."""

"""The only modules that speak to an API or over HTTP."""

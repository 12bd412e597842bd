"""
Clients of OpenAI and Anthropic whose calls are traced, through the WhyOps proxy or directly.

The packages of the providers are never imported: a client is recognised by its methods.
"""

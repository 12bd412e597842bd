"""A made-up secret of each form that is recognised."""

from __future__ import annotations

ALNUM = "a1B2c3D4e5F6g7H8i9J0"
UPPER = "A1B2C3D4E5F6G7H8"
#: A token of each form. They are put together here, so that no scanner takes this file for a leak.
TOKENS = {
    "openai": "sk-" + ALNUM * 2,
    "openai project": "sk-proj-" + "_x-Y" + ALNUM * 4,
    "anthropic": "sk-ant-" + "api03-" + ALNUM * 4 + "-AA",
    "openrouter": "sk-or-" + "v1-" + "0f" * 32,
    "langfuse": "sk-lf-" + "0b9fcd2e-0c5a-4c4e-9a4e-6e0d1f9a7c11",
    "groq": "gsk_" + ALNUM * 2,
    "langsmith": "lsv2_" + "pt_" + "0f" * 16 + "_" + "0f" * 5,
    "whyops": "whyops_" + ALNUM,
    "whyops yops": "YOPS-" + ALNUM,
    "huggingface": "hf_" + "aBcDeFgHiJkLmNoPqRsTuVwXyZaBcDeFgH",
    "aws": "AKIA" + UPPER,
    "aws session": "ASIA" + UPPER,
    "github": "ghp_" + ALNUM * 2,
    "github app": "ghs_" + ALNUM * 2,
    "github fine-grained": "github_" + "pat_" + ALNUM + "_" + ALNUM * 2,
    "gitlab": "glpat-" + ALNUM,
    "gitlab routable": "glpat-" + ALNUM * 2 + ".01." + ALNUM,
    "slack": "xoxb-" + "123456789012-1234567890123-" + ALNUM,
    "slack app": "xapp-" + "1-A012345-123-" + ALNUM,
    "google": "AIza" + "Sy" + ALNUM + "-_bCdEfGhIjKlM",
    "stripe": "sk_" + "live_" + ALNUM,
    "stripe restricted": "rk_" + "test_" + ALNUM,
    "npm": "npm_" + ALNUM * 2,
    "pypi": "pypi-" + "AgEIcHlwaS5vcmc" + ALNUM * 3,
    "jwt": "eyJhbGciOiJIUzI1NiJ9" + ".eyJzdWIiOiIxMjM0NTY3ODkwIn0" + ".dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P",
    "jwt without signature": "eyJhbGciOiJIUzI1NiJ9" + ".eyJzdWIiOiIxMjM0NTY3ODkwIn0.",
    "jwe": "eyJhbGciOiJkaXIiLCJlbmMi" + "..0f0f.0f0f.0f0f",
}

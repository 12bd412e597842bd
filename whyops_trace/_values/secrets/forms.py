"""
The forms of tokens that are recognised without a name.

Where a form comes from is said for each: "G" is the public rule file of gitleaks, config/gitleaks.toml, with the ids of
its rules; "T" are the public detectors of trufflehog, pkg/detectors, with their names; "N" are the public rules of
Nosey Parker. Lengths are minimums, because issuers make their tokens longer, as GitHub announced:
https://github.blog/changelog/2021-03-31-authentication-token-format-updates-are-generally-available/
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Form(NamedTuple):
    """
    A kind of token.

    Attributes:
        issuer: Who issues such tokens.
        starts: The beginnings of a token, separated by spaces. A beginning that ends in a dot stays readable.
        rest: Regular expression of what follows.
        source: Where the form is documented.
    """

    issuer: str
    starts: str
    rest: str
    source: str


#: The sign that tells a token from joined words: a digit among the next characters. It is bounded, or the
#: time would not be linear.
_D = r"(?=[\w-]{0,40}\d)"
_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"

#: The forms of models and their tools.
MODELS: Final = (
    Form("OpenAI, Anthropic, OpenRouter, Langfuse, DeepSeek and others", "sk-", _D + r"[\w-]{17,}+",
         "G openai-api-key, anthropic-api-key; T openrouter, langfuse, deepseek"),
    Form("Groq", "gsk_", _D + r"[\w-]{20,}+", "T groq"),
    Form("xAI", "xai-", _D + r"[\w-]{20,}+", "T xai"),
    Form("Perplexity", "pplx-", _D + r"[\w-]{20,}+", "G perplexity-api-key"),
    Form("Tavily", "tvly-", _D + r"[\w-]{20,}+", "docs.tavily.com, API reference"),
    Form("NVIDIA", "nvapi-", _D + r"[\w-]{30,}+", "T nvapi"),
    Form("LangSmith", "lsv2_pt_ lsv2_sk_", r"[0-9a-f_]{30,}+", "T langsmith"),
    Form("Pinecone", "pcsk_", r"\w{30,}+", "T pinecone"),
    Form("Replicate", "r8_", _D + r"[\w-]{20,}+", "T replicate"),
    Form("Hugging Face", "hf_ api_org_", r"[A-Za-z0-9]{30,}+",
         "G huggingface-access-token, huggingface-organization-api-token"),
    Form("ElevenLabs", "sk_", r"[0-9a-f]{48}(?!\w)", "T elevenlabs"),
    Form("PostHog", "phx_", r"\w{40,}+", "T posthog"),
    Form("Apify", "apify_api_", r"[\w-]{30,}+", "T apify"),
    Form("WhyOps", "whyops_ YOPS-", _D + r"[\w-]{13,}+", "its own"),
)  # fmt: skip

#: The forms of clouds and databases.
CLOUDS: Final = (
    Form("AWS", "AKIA ASIA ABIA ACCA", r"[A-Z0-9]{16}(?![\w-])", "IAM user guide, IAM identifiers; G aws-access-token"),
    Form("AWS Bedrock", "ABSK", r"[A-Za-z0-9+/]{100,}+={0,2}", "G aws-amazon-bedrock-api-key-long-lived"),
    Form("AWS Bedrock", "bedrock-api-key-", r"[\w+/=-]{30,}+", "G aws-amazon-bedrock-api-key-short-lived"),
    Form("Google", "AIza", r"[\w-]{30,}+", "G gcp-api-key"),
    Form("Google", "GOCSPX-", r"[\w-]{20,}+", "N np.google.2"),
    Form("Google", "ya29.", r"[\w-]{20,}+", "T googleoauth2"),
    Form("Alibaba Cloud", "LTAI", r"[A-Za-z0-9]{16,}+(?![\w-])", "G alibaba-access-key-id; T alibaba"),
    Form("Yandex", "AQVN", r"[\w-]{35,}+", "G yandex-api-key"),
    Form("DigitalOcean", "dop_v1_ doo_v1_ dor_v1_", r"[0-9a-f]{40,}+", "G digitalocean-pat"),
    Form("Databricks", "dapi", r"[0-9a-f]{32}(?:-\d)?(?!\w)", "G databricks-api-token"),
    Form("Supabase", "sbp_", r"[a-z0-9]{40}(?!\w)", "T supabasetoken"),
    Form("PlanetScale", "pscale_tkn_ pscale_oauth_ pscale_pw_", r"[\w=.-]{32,}+", "G planetscale-api-token"),
    Form("ClickHouse", "4b1d", r"[A-Za-z0-9]{38}(?!\w)", "G clickhouse-cloud-api-secret-key"),
    Form("Heroku", "HRKU-", r"AA[\w-]{50,}+", "G heroku-api-key-v2"),
    Form("Fly.io", "fo1_ fm1a_ fm1r_ fm2_", r"[\w+/-]{40,}+={0,3}", "G flyio-access-token"),
    Form("Cloudflare", "cfut_ cfat_ cfk_", r"[A-Za-z0-9]{40,}+", "T cloudflareapitoken, cloudflareglobalapikey"),
    Form("Cloudflare", "v1.0-", r"[0-9a-f]{24}-[0-9a-f]{100,}+", "G cloudflare-origin-ca-key"),
    Form("Scalingo", "tk-us-", r"[\w-]{40,}+", "G scalingo-api-token"),
    Form("HashiCorp Vault", "hvs. hvb.", r"[\w-]{24,}+", "G vault-service-token, vault-batch-token"),
    Form("HashiCorp Terraform", "atlasv1.", r"[\w=-]{40,}+", "G hashicorp-tf-api-token"),
    Form("Pulumi", "pul-", r"[0-9a-f]{40}(?!\w)", "G pulumi-api-token"),
    Form("Doppler", "dp.pt. dp.st. dp.ct. dp.sa.", r"[\w.-]{30,}+", "G doppler-api-token; T doppler"),
    Form("Dynatrace", "dt0c01.", r"[A-Z0-9]{20,}+\.[A-Z0-9]{40,}+", "G dynatrace-api-token"),
    Form("Tailscale", "tskey-", r"[a-z]++-\w++-\w++", "T tailscale"),
    Form("OpenShift", "sha256~", r"[\w-]{43}(?!\w)", "G openshift-user-token"),
    Form("Prefect", "pnu_", r"[A-Za-z0-9]{36}(?!\w)", "G prefect-api-token"),
    Form("1Password", "A3-", r"[A-Z0-9]{6}-[A-Z0-9-]{20,}+", "G 1password-secret-key"),
    Form("1Password", "ops_", r"eyJ[A-Za-z0-9+/]{100,}+={0,3}", "G 1password-service-account-token"),
    Form("age", "AGE-SECRET-KEY-", r"1[A-Z0-9]{58}(?!\w)", "G age-secret-key"),
)  # fmt: skip

#: The forms of where code is kept, built and watched.
CODE: Final = (
    # Those of installations may hold a JWT.
    Form("GitHub", "ghp_ gho_ ghu_ ghs_ ghr_", r"\w{30,}+(?:\.[\w-]++)*+", "GitHub's token formats; G github-pat"),
    Form("GitHub", "github_pat_", r"\w{30,}+", "GitHub's token formats; G github-fine-grained-pat"),
    # Routable ones end in a checksum behind dots.
    Form("GitLab", "glagent- glcbt- gldt- glffct- glft- glimt- gloas- glpat- glptt- glrt- glsoat- GR1348941",
         r"[\w-]{15,}+(?:\.[\w-]++)*+", "GitLab's token prefixes; G gitlab-pat and its like"),
    Form("npm", "npm_", r"[A-Za-z0-9]{30,}+", "G npm-access-token"),
    Form("PyPI", "pypi-", r"[\w-]{30,}+", "G pypi-upload-token"),
    Form("RubyGems", "rubygems_", r"[0-9a-f]{40,}+", "G rubygems-api-token"),
    Form("Clojars", "CLOJARS_", r"[A-Za-z0-9]{60}(?!\w)", "G clojars-api-token"),
    Form("Docker", "dckr_pat_ dckr_oat_", r"[\w-]{20,}+", "T dockerhub"),
    Form("JFrog", "AKCp", r"[A-Za-z0-9]{69}(?!\w)", "G artifactory-api-key"),
    Form("JFrog", "cmVmd", r"[A-Za-z0-9]{59}(?!\w)", "G artifactory-reference-token"),
    Form("Atlassian", "ATATT3 ATCTT3 ATBB", _D + r"[\w=.+/-]{20,}+", "G atlassian-api-token; T bitbucketapppassword"),
    Form("Atlassian", "BBDC-", _D + r"[\w+/@-]{40,}+", "T atlassiandatacenter"),
    Form("Sourcegraph", "sgp_", r"(?:[0-9a-fA-F]{16}_|local_)?[0-9a-fA-F]{40}(?!\w)", "G sourcegraph-access-token"),
    Form("SonarQube", "squ_ sqp_ sqa_ sqco_", r"[A-Za-z0-9]{40,}+", "G sonar-api-token; T sonarcloud"),
    Form("CircleCI", "CCIPAT_", r"\w{40,}+", "T circleci"),
    Form("Buildkite", "bkua_", r"[0-9a-z]{40}(?!\w)", "T buildkite"),
    Form("Octopus Deploy", "API-", r"[A-Z0-9]{26}(?!\w)", "G octopus-deploy-api-key"),
    Form("Harness", "pat. sat.", r"[\w-]{22}\.[A-Za-z0-9]{24}\.[A-Za-z0-9]{20}", "G harness-api-key"),
    Form("Postman", "PMAK-", r"[0-9a-f]{24}-[0-9a-f]{34}", "G postman-api-token"),
    Form("Infracost", "ico-", r"[A-Za-z0-9]{32}(?!\w)", "G infracost-api-token"),
    Form("Sentry", "sntryu_", r"[0-9a-f]{64}", "G sentry-user-token"),
    Form("Sentry", "sntrys_", r"eyJ[\w+/=]{40,}+", "G sentry-org-token"),
    Form("Grafana", "glsa_", r"[A-Za-z0-9]{32}_[0-9A-Fa-f]{8}", "G grafana-service-account-token"),
    Form("Grafana", "glc_", r"[A-Za-z0-9+/]{32,}+={0,3}", "G grafana-cloud-api-token"),
    Form("New Relic", "NRAK- NRII- NRJS-", r"[A-Za-z0-9-]{19,}+", "G new-relic-user-api-key and its like"),
    Form("Defined Networking", "dnkey-", r"[\w=-]{26}-[\w=-]{52}", "G defined-networking-api-token"),
)  # fmt: skip

#: The forms of services.
SERVICES: Final = (
    Form("Slack", "xoxa- xoxb- xoxc- xoxd- xoxe- xoxo- xoxp- xoxr- xoxs- xapp- xoxe.xoxb- xoxe.xoxp-",
         _D + r"[\w%-]{10,}+", "Slack's token types; G slack-bot-token and its like"),
    Form("Stripe", "sk_live_ sk_test_ sk_prod_ rk_live_ rk_test_ rk_prod_", r"[A-Za-z0-9]{10,}+",
         "G stripe-access-token"),
    Form("Stripe", "whsec_", r"[A-Za-z0-9+/]{10,}+={0,2}",
         "Standard Webhooks, specification, signature scheme"),
    Form("SendGrid", "SG.", r"[\w-]{15,}+\.[\w-]{15,}+", "G sendgrid-api-token"),
    Form("Twilio", "SK", r"[0-9a-fA-F]{32}(?!\w)", "G twilio-api-key"),
    Form("Mailgun", "key-", r"[0-9a-f]{32}(?!\w)", "G mailgun-private-api-token"),
    Form("Brevo", "xkeysib-", r"[0-9a-f]{64}-[A-Za-z0-9]{16}", "G sendinblue-api-token"),
    Form("Notion", "ntn_", r"[A-Za-z0-9]{40,}+", "G notion-api-token"),
    Form("Notion", "secret_", r"[A-Za-z0-9]{43}(?!\w)", "T notion"),
    Form("Linear", "lin_api_", r"[A-Za-z0-9]{40}(?!\w)", "G linear-api-key"),
    Form("Figma", "figp_", r"[\w=-]{40,}+", "T figmapersonalaccesstoken"),
    Form("Contentful", "CFPAT-", r"[\w-]{40,}+", "T contentfulpersonalaccesstoken"),
    Form("ReadMe", "rdme_", r"[a-z0-9]{70}(?!\w)", "G readme-api-token"),
    Form("Typeform", "tfp_", r"[\w.=-]{50,}+", "G typeform-api-token"),
    Form("Dropbox", "sl.", r"[\w=-]{130,}+", "G dropbox-short-lived-api-token"),
    Form("Frame.io", "fio-u-", r"[\w=-]{64}", "G frameio-api-token"),
    Form("Adobe", "p8e-", r"[A-Za-z0-9]{32}(?!\w)", "G adobe-client-secret"),
    Form("Adafruit", "aio_", r"[A-Za-z0-9]{28}(?!\w)", "T adafruitio"),
    Form("Mapbox", "sk.", r"[A-Za-z0-9.-]{80,}+", "T mapbox"),
    Form("HubSpot", "pat-na1- pat-eu1-", _UUID, "T hubspot_apikey"),
    Form("Shopify", "shpat_ shpca_ shppa_ shpss_", r"[0-9a-fA-F]{32}(?!\w)", "G shopify-access-token and its like"),
    Form("Square", "EAAA", r"(?<![+/]EAAA)[\w-]{50,}+", "G square-access-token"),
    Form("Square", "sq0atp- sq0csp-", r"[\w-]{22,}+", "G square-access-token; T squareapp"),
    Form("Facebook", "EAAM EAAC", r"(?<![+/]EAA.)[A-Za-z0-9]{60,}+", "G facebook-page-access-token"),
    Form("Plaid", "access-sandbox- access-development- access-production-", _UUID, "G plaid-api-token"),
    Form("Shippo", "shippo_live_ shippo_test_", r"[0-9a-fA-F]{40}", "G shippo-api-token"),
    Form("EasyPost", "EZAK EZTK", r"[A-Za-z0-9]{54}", "G easypost-api-token"),
    Form("Duffel", "duffel_live_ duffel_test_", r"[\w=-]{43}", "G duffel-api-token"),
    Form("Flutterwave", "FLWSECK_TEST-", r"[0-9A-Za-z]{12,}+(?:-X)?", "G flutterwave-secret-key"),
    Form("SettleMint", "sm_aat_ sm_pat_ sm_sat_", r"[A-Za-z0-9]{16}(?!\w)", "G settlemint-personal-access-token"),
    Form("Intra 42", "s-s4t2ud- s-s4t2af-", r"[0-9a-f]{64}", "G intra42-client-secret"),
    Form("Salesforce", "5AEP861", r"[\w.=]{80,}+", "T salesforcerefreshtoken"),
)  # fmt: skip

#: All forms that begin with something of their own.
FORMS: Final = (*MODELS, *CLOUDS, *CODE, *SERVICES)


class Shape(NamedTuple):
    """
    A kind of secret that begins with nothing of its own.

    Attributes:
        title: What it is.
        anchor: A rare character in it.
        around: Regular expression of what stands behind the character, with look-behinds for what stands before. Its
            group, if it has one, is the secret.
        length: Number of characters of the secret before and with the anchor, where it has no group.
        source: Where the form is documented.
    """

    title: str
    anchor: str
    around: str
    length: int
    source: str


#: The beginning of a JSON Web Token, where no word stands before it but the letter of an escape, or of a colour.
_JWT = r"(?<=eyJ)(?:(?<![\w-]eyJ)|(?<=\\[nrtbf]eyJ)|(?<=\\u00..eyJ)|(?<=%..eyJ)|(?<=\[\dmeyJ)|(?<=[\[;]\d\dmeyJ))"

#: The secrets that begin with nothing of their own.
SHAPES: Final = (
    Shape("JSON Web Tokens, signed and encrypted", "J",
          _JWT
          + r"(?:rIjoi[A-Za-z0-9]{60,}+={0,3}|[\w-]{14,}+\.(?:eyJ[\w-]++(?:\.[\w-]*+)?|[\w-]*+(?:\.[\w-]++){3}))", 3,
          "RFC 7515, RFC 7516; G jwt, grafana-api-key"),
    Shape("what follows Bearer", "B",
          r"(?:earer|EARER) ++(?=[\w.-]{0,60}\d)([\w-]{8,}+(?:[.~+/=]++[\w-]*+)*+)", 0, "RFC 6750"),
    Shape("what follows Bearer", "b",
          r"earer ++(?=[\w.-]{0,60}\d)([\w-]{8,}+(?:[.~+/=]++[\w-]*+)*+)", 0, "RFC 6750"),
    Shape("user and password in base64 behind Basic", "B",
          r"(?:asic|ASIC) ++([A-Za-z0-9+/]{6,}+={0,2})", 0, "RFC 7617"),
    Shape("user and password in base64 behind Basic", "b", r"asic ++([A-Za-z0-9+/]{6,}+={0,2})", 0, "RFC 7617"),
    Shape("webhooks of Slack", "k",
          r"(?<=hook)s\.slack\.com/(?:services|workflows|triggers)/([\w/+]{20,}+)", 0, "G slack-webhook-url"),
    Shape("webhooks of Discord", "k", r"(?<=webhook)s/(\d{10,}+/[\w-]{20,}+)", 0, "T discordwebhook"),
    Shape("webhooks of Zapier", "k", r"(?<=hook)s/catch/(\d{3,}+/\w{5,}+)", 0, "T zapierwebhook"),
    Shape("webhooks of Microsoft Teams", "k", r"(?<=webhook)b2/([\w@/-]{60,}+)", 0, "G microsoft-teams-webhook"),
    Shape("client secrets of Microsoft Entra", "~", r"(?<=[\w.~]{3}\dQ~)[\w~.-]{31,34}", 6, "G azure-ad-client-secret"),
    Shape("tokens of Telegram's bots", "A", r"(?<=\d{5}:A)([\w-]{34}(?![\w-]))", 0, "G telegram-bot-api-token"),
    Shape("tokens of Discord's bots", ".", r"[\w-]{6}\.(?<=[\w-]{24}\.[\w-]{6}\.)(?=[\w-]{0,26}\d)[\w-]{27,}+", 25,
          "T discordbottoken"),
    Shape("keys of Airtable", ".", r"[0-9a-f]{64}(?<=pat[A-Za-z0-9]{14}\.[0-9a-f]{64})", 18,
          "G airtable-personnal-access-token"),
    Shape("keys of Mailchimp", "-", r"us(?<=[0-9a-f]{32}-us)\d\d?(?!\w)", 33, "G mailchimp-api-key"),
    Shape("keys of MaxMind", "_", r"mmk(?<=[A-Za-z0-9]{6}_[A-Za-z0-9]{29}_mmk)(?!\w)", 37, "G maxmind-license-key"),
    Shape("sessions of Salesforce", "!", r"(?<=00[A-Za-z0-9]{13}!)[\w.]{60,}+", 16, "T salesforce"),
    Shape("access tokens of Facebook", "|", r"(?<=\d{15}\|)([\w-]{27,40}(?![\w-]))", 0, "G facebook-access-token"),
)  # fmt: skip

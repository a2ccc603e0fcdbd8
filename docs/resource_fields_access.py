"""What each field of a Tenant and of an Issuer means, in words, as `resource_fields` does it for an Endpoint."""

HEAD: dict[str, str] = {
    "apiVersion": "the only one there is",
    "kind": "which kind of resource it is",
    "metadata": "who it is",
    "metadata.name": "1 to 128 letters, digits, `.`, `_`, `-`",
    "metadata.labels": "up to 64 names and texts of your own; they change nothing",
    "spec": "what it is to be",
}


def _limits(path: str, whose: str) -> dict[str, str]:
    return {
        path: f"how much may come at a time from {whose}",
        f"{path}.requests_per_second": "on average; 0 sets no limit",
        f"{path}.burst": "how many may come at once; 0 is one second's worth",
        f"{path}.rows_per_second": "rows of all requests together; 0 sets no limit",
        f"{path}.concurrency": "requests that have no answer yet; 0 sets no limit",
    }


TENANT: dict[str, str] = {
    **HEAD,
    **_limits("spec.limits", "all of the tenant together"),
    **_limits("spec.key_limits", "each of its keys"),
    "spec.quotas": "how much it may use in a calendar day or month (UTC); 0 sets no quota",
    **{
        f"spec.quotas.{what}_per_{span}": f"{meaning}, per {span}"
        for what, meaning in (
            ("requests", "requests"),
            ("rows", "rows"),
            ("tokens", "tokens in and out"),
            ("cost", "the sum of what endpoints charge (`spec.cost` there)"),
        )
        for span in ("day", "month")
    },
    "spec.priority": "0 (highest) to 9: what its requests have at most, and where they say nothing",
    "spec.weight": "its share where several tenants wait for the same model, above 0, up to 1,000",
    "spec.certificates": "up to 64 names (DNS, URI or e-mail of the subject alternative name, or the common name): who "
    "shows a client certificate with one is this tenant; a name belongs to one tenant",
}
ISSUER: dict[str, str] = {
    **HEAD,
    "spec.issuer": "what tokens say in `iss`, to the letter; without `jwks_url` also where discovery begins: https, or "
    "http on the loopback",
    "spec.audience": "what tokens have to carry in `aud`",
    "spec.jwks_url": "where its public keys are; left out, OpenID discovery finds them",
    "spec.algorithms": "signatures that count: RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512, EdDSA, "
    "Ed25519; never `none`, never an HMAC",
    "spec.tenant": "whom its callers belong to",
    "spec.tenant_claim": "without `tenant`: the claim that says it",
    "spec.scope_claim": "the claim that holds scopes (a list, or words); left out, its callers may infer",
    "spec.leeway_s": "how far clocks may be apart, up to 300",
    "spec.refresh_s": "how often its keys are read again, 10 to 86,400; an unknown key makes control look at once",
    "spec.ca_file": "certificates to trust instead of the system's: an absolute path that control can read",
}

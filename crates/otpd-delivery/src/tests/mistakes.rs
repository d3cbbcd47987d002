//! Wrong tables, and the error of each.

const HTTP: &str = "kind = \"http\"\nurl = \"https://gateway.example/\"\n";
const SMTP: &str = "kind = \"smtp\"\nhost = \"mail.example\"\nfrom = \"a@b.example\"\n";

/// Beginning of the table, its remainder, and a part of the error.
pub const ALL: &[(&str, &str, &str)] = &[
    ("", "", "providers.x.kind: is missing"),
    ("", "kind = \"pigeon\"", "providers.x.kind: unknown kind"),
    (
        "",
        "preset = \"pigeon\"",
        "providers.x.preset: unknown preset; use one of:",
    ),
    (
        "",
        "preset = \"sms_ru\"",
        "providers.x.secrets.api_id: is missing; preset sms_ru needs it",
    ),
    (
        "",
        "preset = \"sms_ru\"\nkind = \"smtp\"",
        "providers.x.kind: must be",
    ),
    (
        "",
        "preset = \"twilio\"\nsecrets.auth_token = \"a\"\nparameters.from = \"+1\"",
        "providers.x.parameters.account_sid: is missing; preset twilio",
    ),
    (
        "",
        "kind = \"log\"\nurl = \"x\"",
        "providers.x.url: unknown key",
    ),
    (
        "",
        "kind = \"log\"\ntimeout = \"50ms\"",
        "providers.x.timeout: 50ms is out of bounds",
    ),
    (
        "",
        "kind = \"log\"\ntimeout = \"2m\"",
        "providers.x.timeout: 2m is out of bounds",
    ),
    (
        "",
        "kind = \"log\"\nmax_concurrency = 0",
        "providers.x.max_concurrency: 0 is out",
    ),
    (
        "",
        "kind = \"log\"\nrate_per_second = -1",
        "providers.x.rate_per_second",
    ),
    (
        "",
        "kind = \"log\"\nchannel = \"fax\"",
        "providers.x.channel: unknown channel",
    ),
    ("", "kind = \"http\"", "providers.x.url: is missing"),
    (HTTP, "urll = \"x\"", "providers.x.urll: unknown key"),
    (HTTP, "urll = \"x\"", "`kind`, `preset`, `timeout`"),
    (HTTP, "method = \"DELETE\"", "providers.x.method: must be"),
    (
        HTTP,
        "query.to = \"{too}\"",
        "providers.x.query.to: names {too}",
    ),
    (
        HTTP,
        "form.to = \"{too}\"",
        "providers.x.form.to: names {too}",
    ),
    (
        HTTP,
        "json.a.b = [\"{too}\"]",
        "providers.x.json: names {too}",
    ),
    (
        HTTP,
        "form.a = \"1\"\njson.a = \"1\"",
        "providers.x.json: form is set",
    ),
    (
        HTTP,
        "headers.to = \"{secrets.no}\"",
        "providers.x.headers.to: names {secrets.no}",
    ),
    (
        HTTP,
        "headers.\"a b\" = \"1\"",
        "providers.x.headers.a b: is not the name",
    ),
    (
        HTTP,
        "basic = { user = \"a\", password = \"{x}\" }",
        "providers.x.basic.password",
    ),
    (
        HTTP,
        "fallback_urls = [\"ftp://a.example\"]",
        "providers.x.fallback_urls: must begin",
    ),
    (
        HTTP,
        "success_status = [99]",
        "providers.x.success_status: \"99\" is not",
    ),
    (
        HTTP,
        "id_pointer = \"id\"",
        "providers.x.id_pointer: not a JSON pointer",
    ),
    (
        HTTP,
        "conditions = [{ pointer = \"/a\" }]",
        "providers.x.conditions[0]: needs one of",
    ),
    (
        HTTP,
        "conditions = [{ pointer = \"/a\", equals = 1, present = true }]",
        "providers.x.conditions[0]: needs one of",
    ),
    (
        HTTP,
        "conditions = [{ pointer = \"/a\", equal = 1 }]",
        "equal: unknown key",
    ),
    (
        HTTP,
        "errors = [{ class = \"odd\", status = 400 }]",
        "providers.x.errors[0].class: unknown class",
    ),
    (
        HTTP,
        "errors = [{ class = \"permanent\" }]",
        "providers.x.errors[0].status: is missing",
    ),
    (
        HTTP,
        "errors = [{ class = \"permanent\", equals = 1 }]",
        "providers.x.errors[0].pointer: is missing",
    ),
    (
        HTTP,
        "ttl_seconds_min = 9\nttl_seconds_max = 8",
        "providers.x.ttl_seconds_min",
    ),
    (HTTP, "secrets.a = \"\"", "providers.x.secrets.a: is empty"),
    (
        HTTP,
        "secrets.a_file = \"/nowhere\"",
        "providers.x.secrets.a_file: cannot read /nowhere",
    ),
    (
        HTTP,
        "check.url = \"https://a.example/{code}\"",
        "providers.x.check.url",
    ),
    (
        HTTP,
        "check.form.a = \"{nope}\"\ncheck.url = \"https://a.example\"",
        "providers.x.check.form.a",
    ),
    (
        "kind = \"http\"\n",
        "url = \"http://gateway.example/\"",
        "providers.x.url: secrets and codes",
    ),
    (
        "kind = \"http\"\n",
        "url = \"https://{code}.example/\"",
        "providers.x.url",
    ),
    (
        "kind = \"http\"\n",
        "url = \"https://gateway.example{code}/\"",
        "providers.x.url",
    ),
    (
        "kind = \"http\"\n",
        "url = \"https://a:b@gateway.example/\"",
        "providers.x.url: has a user name",
    ),
    (
        "kind = \"http\"\n",
        "url = \"https://10.0.0.1/\"",
        "providers.x.url: the address is not public",
    ),
    (
        "kind = \"http\"\n",
        "url = \"https://0x7f.1/\"",
        "providers.x.url: the address is not public",
    ),
    (
        "kind = \"http\"\n",
        "url = \"https://2130706433/\"",
        "providers.x.url: the address is not public",
    ),
    (
        "kind = \"http\"\n",
        "url = \"https://[::ffff:10.0.0.1]/\"",
        "providers.x.url: the address is not public",
    ),
    (
        "",
        "kind = \"smtp\"\nfrom = \"a@b.example\"",
        "providers.x.host: is missing",
    ),
    (
        "",
        "kind = \"smtp\"\nhost = \"a.example\"",
        "providers.x.from: is missing",
    ),
    (SMTP, "tls = \"none\"", "providers.x.tls: codes would cross"),
    (SMTP, "tls = \"maybe\"", "providers.x.tls"),
    (SMTP, "user = \"a\"", "providers.x.password: is missing"),
    (SMTP, "password = \"a\"", "providers.x.user: is missing"),
    (
        SMTP,
        "user = \"a\"\npassword = \"b\"\npassword_file = \"c\"",
        "providers.x.password_file: password is set",
    ),
    (
        SMTP,
        "reply_to = \"nobody\"",
        "providers.x.reply_to: is not an e-mail",
    ),
    (SMTP, "ca = \"/nowhere\"", "providers.x.ca: /nowhere"),
    (SMTP, "ehlo_name = \"a b\"", "providers.x.ehlo_name"),
];

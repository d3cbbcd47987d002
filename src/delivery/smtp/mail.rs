//! A message as an e-mail.

use lettre::{
    Message,
    message::{
        Mailbox, MultiPart, SinglePart,
        header::{HeaderName, HeaderValue},
    },
};

use super::SmtpSettings;
use crate::delivery::{DeliveryError, OutgoingMessage};
use otpd_rules::DeliveryErrorKind;

/// What a mail is called whose text has no subject.
const DEFAULT_SUBJECT: &str = "Code";

/// The e-mail for `message`.
///
/// # Errors
/// What cannot be an e-mail.
pub fn compose(
    settings: &SmtpSettings,
    envelope: &OutgoingMessage<'_>,
) -> Result<Message, DeliveryError> {
    let unfit = |what: &str| DeliveryError::new(DeliveryErrorKind::Permanent, what);
    let to = envelope.recipient.as_str().parse();
    let to = to.map_err(|_| unfit("the recipient is no e-mail address"))?;
    let text = envelope.text;
    let subject = text.subject.as_deref().unwrap_or(DEFAULT_SUBJECT);
    if subject.contains(char::is_control) {
        return Err(unfit("the subject holds a control character"));
    }
    // The same at each attempt, so that a mail that was handed over twice is known for
    // one mail.
    let id = format!("<{}@{}>", envelope.id, settings.from.email.domain());
    let mut builder = Message::builder()
        .from(settings.from.clone())
        .to(Mailbox::new(None, to))
        .subject(subject)
        .message_id(Some(id))
        // The machine's clock tells the reader when the mail was written, as RFC 5322
        // wants it. Nothing is decided by it.
        .date_now()
        // RFC 3834: no answer of an absent person is wanted.
        .raw_header(HeaderValue::new(
            HeaderName::new_from_ascii_str("Auto-Submitted"),
            "auto-generated".to_owned(),
        ));
    if let Some(reply_to) = &settings.reply_to {
        builder = builder.reply_to(reply_to.clone());
    }
    let built = match &text.html {
        // Not as a body of its own: without MIME-Version its encoding means nothing
        // (RFC 2045, section 4).
        None => builder.singlepart(SinglePart::plain(text.plain.clone())),
        Some(html) => builder.multipart(MultiPart::alternative_plain_html(
            text.plain.clone(),
            html.clone(),
        )),
    };
    built.map_err(|_| unfit("no e-mail can be made of the message"))
}

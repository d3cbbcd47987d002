//! Conversion of a message into an e-mail.

use lettre::{
    Message,
    message::{
        Mailbox, MultiPart, SinglePart,
        header::{HeaderName, HeaderValue},
    },
};

use super::SmtpSettings;
use crate::{DeliveryError, OutgoingMessage};
use otpd_rules::DeliveryErrorKind;

/// Subject of a mail if its text has none.
const DEFAULT_SUBJECT: &str = "Code";

/// Builds the e-mail for `message`.
///
/// # Errors
/// [`DeliveryError`] if a part of it cannot be written as an e-mail.
pub fn compose(
    settings: &SmtpSettings,
    message: &OutgoingMessage<'_>,
) -> Result<Message, DeliveryError> {
    let unfit = |what: &str| DeliveryError::new(DeliveryErrorKind::Permanent, what);
    let to = message.recipient.as_str().parse();
    let to = to.map_err(|_| unfit("the recipient is not an e-mail address"))?;
    let text = message.text;
    let subject = text.subject.as_deref().unwrap_or(DEFAULT_SUBJECT);
    if subject.contains(char::is_control) {
        return Err(unfit("the subject contains a control character"));
    }
    // Equal at each attempt, so that a mail which is handed over twice is recognized as
    // one.
    let id = format!("<{}@{}>", message.id, settings.from.email.domain());
    let mut builder = Message::builder()
        .from(settings.from.clone())
        .to(Mailbox::new(None, to))
        .subject(subject)
        .message_id(Some(id))
        // The machine's clock shows the reader the time of writing, as RFC 5322 requires.
        // Nothing is decided by it.
        .date_now()
        // Suppresses automatic responses of absent recipients (RFC 3834).
        .raw_header(HeaderValue::new(
            HeaderName::new_from_ascii_str("Auto-Submitted"),
            "auto-generated".to_owned(),
        ));
    if let Some(reply_to) = &settings.reply_to {
        builder = builder.reply_to(reply_to.clone());
    }
    let built = match &text.html {
        // Not as a body alone: without MIME-Version its encoding has no meaning (RFC
        // 2045, section 4).
        None => builder.singlepart(SinglePart::plain(text.plain.clone())),
        Some(html) => builder.multipart(MultiPart::alternative_plain_html(
            text.plain.clone(),
            html.clone(),
        )),
    };
    built.map_err(|_| unfit("the message cannot be written as an e-mail"))
}

//! What the fuzz targets share.

/// A frame around a body, so that the time goes into the decoder behind it; `None` where it is too long for one.
pub fn framed(code: u8, body: &[u8]) -> Option<Vec<u8>> {
    let length = u16::try_from(19 + body.len()).ok()?;
    let mut message = vec![0xff; 16];
    message.extend(length.to_be_bytes());
    message.push(code);
    message.extend_from_slice(body);
    Some(message)
}

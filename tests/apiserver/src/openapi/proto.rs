//! The version 2 document as protobuf, in the messages of gnostic's `OpenAPIv2.proto`: what kubectl before
//! 1.27 reads. Only writes, and only the messages that schemas need.

use serde_json::Value;

/// A growing message.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut n: u64) {
        while n >= 0x80 {
            self.0.push((n as u8 & 0x7f) | 0x80);
            n >>= 7;
        }
        self.0.push(n as u8);
    }

    fn key(&mut self, field: u64, wire_type: u64) {
        self.varint(field << 3 | wire_type);
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.key(field, 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn text(&mut self, field: u64, value: &Value) {
        if let Some(text) = value.as_str() {
            self.bytes(field, text.as_bytes());
        }
    }

    fn message(&mut self, field: u64, inner: Message) {
        self.bytes(field, &inner.0);
    }

    fn flag(&mut self, field: u64, value: &Value) {
        if value.as_bool() == Some(true) {
            self.key(field, 0);
            self.varint(1);
        }
    }

    fn integer(&mut self, field: u64, value: &Value) {
        if let Some(n) = value.as_u64() {
            self.key(field, 0);
            self.varint(n);
        }
    }

    fn double(&mut self, field: u64, value: &Value) {
        if let Some(n) = value.as_f64() {
            self.key(field, 1);
            self.0.extend_from_slice(&n.to_le_bytes());
        }
    }
}

/// The document.
pub(super) fn document(json: &Value) -> Vec<u8> {
    let mut info = Message::default();
    info.text(1, &json["info"]["title"]);
    info.text(2, &json["info"]["version"]);
    let mut out = Message::default();
    out.text(1, &json["swagger"]);
    out.message(2, info);
    out.message(8, Message::default());
    out.message(9, named_schemas(&json["definitions"]));
    out.0
}

/// `Definitions` and `Properties`: both are field 1 repeated.
fn named_schemas(json: &Value) -> Message {
    let mut all = Message::default();
    for (name, definition) in json.as_object().into_iter().flatten() {
        let mut named = Message::default();
        named.bytes(1, name.as_bytes());
        named.message(2, schema(definition));
        all.message(1, named);
    }
    all
}

/// `Any`: the value as YAML, of which JSON is a part.
fn any(json: &Value) -> Message {
    let mut any = Message::default();
    any.bytes(2, json.to_string().as_bytes());
    any
}

fn schema(json: &Value) -> Message {
    let mut out = Message::default();
    out.text(1, &json["$ref"]);
    out.text(2, &json["format"]);
    out.text(4, &json["description"]);
    if !json["default"].is_null() {
        out.message(5, any(&json["default"]));
    }
    out.double(7, &json["maximum"]);
    out.double(9, &json["minimum"]);
    out.integer(11, &json["maxLength"]);
    out.integer(12, &json["minLength"]);
    out.text(13, &json["pattern"]);
    out.integer(14, &json["maxItems"]);
    out.integer(15, &json["minItems"]);
    out.flag(16, &json["uniqueItems"]);
    for name in json["required"].as_array().into_iter().flatten() {
        out.text(19, name);
    }
    for value in json["enum"].as_array().into_iter().flatten() {
        out.message(20, any(value));
    }
    if json["additionalProperties"].is_object() {
        let mut item = Message::default();
        item.message(1, schema(&json["additionalProperties"]));
        out.message(21, item);
    }
    if json["type"].is_string() {
        let mut item = Message::default();
        item.text(1, &json["type"]);
        out.message(22, item);
    }
    if json["items"].is_object() {
        let mut item = Message::default();
        item.message(1, schema(&json["items"]));
        out.message(23, item);
    }
    if json["properties"].is_object() {
        out.message(25, named_schemas(&json["properties"]));
    }
    for (name, value) in json.as_object().into_iter().flatten().filter(|(name, _)| name.starts_with("x-")) {
        let mut named = Message::default();
        named.bytes(1, name.as_bytes());
        named.message(2, any(value));
        out.message(31, named);
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn a_named_string_property_has_the_bytes_of_the_proto_definition() {
        let bytes = super::schema(&json!({"type": "object", "properties": {"a": {"type": "string"}}})).0;
        let expected: &[u8] =
            b"\xb2\x01\x08\x0a\x06object\xca\x01\x12\x0a\x10\x0a\x01a\x12\x0b\xb2\x01\x08\x0a\x06string";
        assert_eq!(bytes, expected);
    }
}

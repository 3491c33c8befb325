//! A bounds-checked reader over one message body.

//! What stands where in the reply to a command.

/// What the parts of a reply are.
///
/// An error instead of a reply, and a null instead of any part of it, fit every shape. What does
/// not fit is taken for a value of a key: in doubt it is masked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Nothing that came out of a key and no key's name, however deep it goes.
    Other,
    /// A value of the key at hand, in the field at hand if there is one. Of an aggregate: all that is
    /// in it.
    Value,
    /// The name of a key, which is the key at hand for what follows beside it.
    Key,
    /// The name of a field of the key at hand, which is the field at hand for the next value.
    Field,
    /// Any number of elements of one shape.
    Each(Box<Self>),
    /// One element after the other; elements beyond are like the last one.
    Tuple(Box<[Self]>),
    /// Pairs: one after the other in one array, or a map, or an array of arrays of two.
    Pairs(Box<Self>, Box<Self>),
    /// The first element is a value of the first key the command names, the second of the second.
    ByKey,
    /// A value of the field that this argument names. If there is no such argument, of a field that
    /// cannot be told: HVALS shows values of any.
    OfField(usize),
    /// The first element is a value of the field that this argument names, the second of the field
    /// that the next one names.
    ByField(usize),
}

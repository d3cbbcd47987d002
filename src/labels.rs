//! Enums whose variants are the values of a metric label.

/// Defines an enum with the text of each variant. The compiler makes sure that every variant has a
/// text and is in `ALL`, and that `variant as usize` is its position there.
macro_rules! label_enum {
    (
        $(#[$attribute:meta])*
        pub enum $name:ident {
            $($(#[$variant_attribute:meta])* $variant:ident = $text:expr,)+
        }
    ) => {
        $(#[$attribute])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$variant_attribute])* $variant,)+
        }

        impl $name {
            /// Every variant, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Returns the texts of all variants, in the order of their numbers.
            pub fn names() -> impl Iterator<Item = &'static str> {
                Self::ALL.iter().map(|variant| variant.name())
            }

            /// Returns the text of the label.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }
        }
    };
}

pub(crate) use label_enum;

//! Crockford's base32, in lower case and without padding: how ids and secrets are written.
//!
//! Its 32 symbols leave out `i`, `l`, `o` and `u`, and are in the order of their codes, so that texts sort as the bytes do. Of the 130 bits that 26
//! symbols hold the last two are zero. By hand, for 16 bytes at a time: every call has some dozen ids written, and libraries take several times as long.

/// Length of the text of 16 bytes.
pub(crate) const LENGTH: usize = 26;

const SYMBOLS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// The text of 16 bytes.
pub(crate) fn text(bytes: [u8; 16]) -> [u8; LENGTH] {
    let number = u128::from_be_bytes(bytes);
    std::array::from_fn(|at| {
        let code = if at < LENGTH - 1 { number >> (123 - 5 * at) } else { number << 2 };
        SYMBOLS[(code & 31) as usize]
    })
}

/// The 16 bytes of a text. Each has one spelling only.
pub(crate) fn bytes(text: &[u8]) -> Option<[u8; 16]> {
    let text: &[u8; LENGTH] = text.try_into().ok()?;
    let (last, rest) = text.split_last()?;
    let code = |symbol: &u8| SYMBOLS.iter().position(|known| known == symbol).map(|code| code as u128);
    let number = rest.iter().try_fold(0_u128, |number, symbol| Some((number << 5) | code(symbol)?))?;
    let last = code(last)?;
    (last & 3 == 0).then(|| ((number << 3) | (last >> 2)).to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4648's alphabet is in the same order; the vectors are Python's `base64.b32encode`, with the symbols replaced.
    #[test]
    fn texts_are_those_that_others_write() {
        for (number, expected) in [
            (0, "00000000000000000000000000"),
            (1, "00000000000000000000000004"),
            (u128::MAX, "zzzzzzzzzzzzzzzzzzzzzzzzzw"),
            (0x0123_4567_89ab_cdef_fedc_ba98_7654_3210, "04hmasw9nf6yzzpwqac7cn1j20"),
        ] {
            let text = text(u128::to_be_bytes(number));
            assert_eq!(std::str::from_utf8(&text), Ok(expected));
            assert_eq!(bytes(&text), Some(number.to_be_bytes()));
        }
    }

    #[test]
    fn other_spellings_are_none() {
        for text in ["", "0", "0000000000000000000000000i", "00000000000000000000000001", "0000000000000000000000000A"]
        {
            assert_eq!(bytes(text.as_bytes()), None, "{text}");
        }
    }
}

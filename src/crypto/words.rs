//! A secret as words on paper (BIP 39, English).

use super::secret::Secret;
use zeroize::Zeroizing;

/// Writes 32 secret bytes as 24 words with a check.
pub fn words(secret: &Secret<32>) -> Zeroizing<String> {
    let mnemonic = bip39::Mnemonic::from_entropy(secret.expose()).expect("BIP 39 takes 32 bytes");
    Zeroizing::new(mnemonic.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_are_those_of_the_standard() {
        // BIP 39, test vector of 32 zero bytes.
        let expected = format!("{}art", "abandon ".repeat(23));
        assert_eq!(words(&Secret::new([0; 32])).as_str(), expected);
    }
}

//! The network side: protocols that applications already speak.

//! Tests of the splice.

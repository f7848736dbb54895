//! Mistakes in the use of the attributes, and what the compiler says of each.

#[test]
fn each_mistake_is_told_on_the_users_own_token() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}

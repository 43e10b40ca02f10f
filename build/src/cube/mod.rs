//! The cube's files: the schemas of the MLCube documents, and the check of a whole cube against them.

pub mod check;
mod locate;
mod schema;

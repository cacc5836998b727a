//! The data plane: the walk of a request.

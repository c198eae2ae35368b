"""C++ libraries compiled for this CPU, and the threads and memory that they use."""

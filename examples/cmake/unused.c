/* In the archive, and not in the program, until something calls it. */
int unused(int n) { return n; }

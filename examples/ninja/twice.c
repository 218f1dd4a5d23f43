int sum(int);

int twice(int n) { return 2 * sum(n); }

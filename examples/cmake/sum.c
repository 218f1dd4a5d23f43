static int square(int n) { return n * n; }

int sum(int n) {
    int total = 0;
    for (int i = 1; i <= n; i++)
        total += square(i);
    return total;
}

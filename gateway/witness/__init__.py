"""In another department: hold a gateway's signed heads, and alarm on whatever contradicts them."""

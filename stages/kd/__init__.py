"""What distillation is made of: objective, teachers, students, what is kept of them."""

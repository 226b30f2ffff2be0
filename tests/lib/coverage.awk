# Reads lcov records, writes a line for each source file: path below `prefix`, lines that ran, lines, percent, and the
# line numbers that did not run. Leaves out the test modules at the end of files.

/^SF:/ {
  file = substr($0, 4)
  end = first_test_line(file)
  covered = lines = 0
  missed = ""
}

/^DA:/ {
  split(substr($0, 4), field, ",")
  if (field[1] >= end) next
  lines++
  if (field[2] > 0) covered++
  else missed = missed " " field[1]
}

/^end_of_record/ {
  if (lines > 0) printf "%s %d %d %.1f%%%s\n", substr(file, length(prefix) + 1), covered, lines, 100 * covered / lines, missed
}

# The line of the `#[cfg(test)]` whose next line opens a module, or one past the end of any file.
function first_test_line(path,    number, text, previous, found) {
  found = 1e9
  while ((getline text < path) > 0) {
    number++
    if (previous ~ /^#\[cfg\(test\)\]/ && text ~ /^(pub )?mod [a-z_]+ \{/) { found = number - 1; break }
    previous = text
  }
  close(path)
  return found
}
